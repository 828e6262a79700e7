"""The search (sections 4 and 7): conditioning, scores, coincidence, significance, and the engine that streams them.

strain -> `conditioning` (whitened) -> `scores` (a statistic per window and detector) -> `coincidence` (triggers)
       -> `significance` (false-alarm rates from time slides); `stream.StreamEngine` does the first three hop by hop.
"""
