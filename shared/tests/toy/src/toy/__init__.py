"""A paper in miniature: the tests of `shared.runs` copy it to a folder of their own."""
