"""What a run meant: records, statistics, verdicts, charts, HTML. Reads files, never touches a machine."""
