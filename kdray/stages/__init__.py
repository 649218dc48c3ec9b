"""The steps on Ray, one file a step. The only place with Ray: everything below is plain Python."""
