"""What is wrong before any work: files, columns, shapes, names. Reads headers and first lines; no torch, no ray."""
