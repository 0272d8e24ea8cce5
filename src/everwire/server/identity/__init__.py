"""Who somebody is: tokens and their keys, pages that may use cookies, what was revoked."""
