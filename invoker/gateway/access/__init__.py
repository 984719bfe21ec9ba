"""Who is calling, and what they may do: callers and their grants (`scopes`), API keys, JWT bearer tokens, rates,
audit. The routes ask the caller; only `login` knows how a caller is found."""
