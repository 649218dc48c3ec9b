"""Files of annotated responses, one format a file: a function of its file's name from a path to `Annotated` rows."""
