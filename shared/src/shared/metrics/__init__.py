"""How samples are compared with data: distances, scores and coverage, over the features of any extractor."""
