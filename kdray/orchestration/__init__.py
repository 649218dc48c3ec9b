"""Ray: the session, its resources, pipelines of items, training jobs and their workers; what the stages are run
with.
"""
