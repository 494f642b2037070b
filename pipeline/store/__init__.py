"""What must survive: records, held messages, dead letters, cursors, schedules and keys, in SQL."""
