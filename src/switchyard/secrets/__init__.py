"""What a host knows of secrets in use: who still holds an old one, and how the warm release gets today's."""
