"""What lies in an artifact: one module a format, with its files' names, its schema, its reader and its writer."""
