"""What the papers' custom operators have in common: choice of backend, ahead-of-time compilation, check on a GPU."""
