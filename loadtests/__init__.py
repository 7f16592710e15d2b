"""Load tests: locust users that know a project only by its URL and its keys."""
