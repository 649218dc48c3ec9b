"""What lies in an artifact's folder: one module a format, with its names, its reader and its writer."""
