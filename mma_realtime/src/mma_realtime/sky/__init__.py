"""Sky maps: HEALPix, multi-order maps and their files, and the localiser that makes them (section 8)."""
