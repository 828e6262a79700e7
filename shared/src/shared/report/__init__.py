"""The pages: `report/index.html` and the tables in the READMEs, from the ledgers and the results."""
