"""The routes of the REST service, by subject."""
