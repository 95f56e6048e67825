"""Who may call what: roles, the access policy, certificates, and their files, which are read again when they change."""
