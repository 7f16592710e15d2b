"""What is in web/, against the stack: the TypeScript subscriber under faults."""
