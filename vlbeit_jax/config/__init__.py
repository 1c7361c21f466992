"""Settings: what a section is, how one is parsed, and the sections that several tasks share."""
