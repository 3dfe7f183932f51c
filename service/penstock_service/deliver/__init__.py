"""Sessions: credits in, bundles out, over gRPC."""
