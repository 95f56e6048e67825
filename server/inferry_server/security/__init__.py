"""Who may do what: roles, the policy file, and what is done when files change."""
