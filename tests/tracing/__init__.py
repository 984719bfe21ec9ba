"""Spans and log lines of whole chains, seen by a real OTLP receiver."""
