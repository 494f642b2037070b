"""The built-in filters, one module each; they import nothing of Siftbell but the plugin API."""
