"""From a recipe to a published version: plan, run, publish, verify, collect."""
