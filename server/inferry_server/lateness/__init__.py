"""Why requests were late or refused: what is kept of them, and which cause is named."""
