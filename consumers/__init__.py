"""The built-in consumers, one module each; they import nothing of Siftbell but the plugin API."""
