"""What operators run against a project's database: each module is the body of one of scripts/."""
