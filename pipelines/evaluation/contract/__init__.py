"""What suites, answers, verdicts and results are; everything else in evaluation speaks in these terms."""
