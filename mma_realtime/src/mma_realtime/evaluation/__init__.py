"""What a trained search is measured by: experiments E1 to E6 of the specification, a file each."""
