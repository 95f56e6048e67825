"""From a proven graph to a version in a repository, and back to its proof."""
