"""The nouns that renderer and service share."""
