"""The scorer: a stateless service that turns a conversation into the probability that the strong model wins."""
