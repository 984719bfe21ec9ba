"""The client over HTTP: `HttpClient` asks a gateway what `invoker.client.Client` asks NATS."""
