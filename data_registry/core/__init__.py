"""What all packages stand on: errors, manifests, documents, and being asked to stop. Imports no torch."""
