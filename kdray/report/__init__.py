"""The report: tables, plots and the verdict, from the records in the store. Reads no model."""
