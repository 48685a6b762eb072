"""A backend with a login, and one page that gets its messages by tickets. It needs nothing but Python:

    USERWIRE_KEY=… python3 backend.py        # then http://127.0.0.1:3001/

The service has the hash of that key in USERWIRE_API_KEYS_FILE, with the scopes send and tickets, a secret for tokens in
USERWIRE_JWT_SECRET, and this backend's address in USERWIRE_ALLOWED_ORIGINS. docs/login.md says how they are made.
"""

import hmac
import json
import os
import secrets
import sys
import urllib.parse
from http import cookies
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Beside your own program userwire.py needs no path.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../clients/python"))
import userwire  # noqa: E402

SERVICE = os.environ.get("USERWIRE_URL", "http://127.0.0.1:8765")
PORT = int(os.environ.get("BACKEND_PORT", "3001"))
PAGE = os.path.join(os.path.dirname(__file__), "page.html")

sender = userwire.Sender(SERVICE, key=os.environ.get("USERWIRE_KEY"))
passwords = {"alice": "wonderland", "bob": "builder"}  # yours come from a database, and are hashed
sessions = {}  # from the value of a cookie to a user


class Backend(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            with open(PAGE, encoding="utf-8") as page:
                self.answer(200, page.read().replace("SERVICE", json.dumps(SERVICE)), "text/html; charset=utf-8")
        elif self.path == "/ticket":
            # Only for whoever is logged in, and only for themselves: nothing in the request says for whom.
            user = self.user()
            if user is None:
                return self.answer(401, "Log in first")
            try:
                self.answer(200, sender.ticket(user).ticket)
            except userwire.Error as error:
                self.answer(502, str(error))
        else:
            self.answer(404, "There is no such page")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path == "/login":
            form = dict(urllib.parse.parse_qsl(body))
            user, password = form.get("user", ""), form.get("password", "")
            if not hmac.compare_digest(passwords.get(user, "").encode(), password.encode()) or not password:
                return self.answer(403, "That is not the password")
            session = secrets.token_urlsafe()
            sessions[session] = user
            self.answer(200, user, session=session)
        elif self.path == "/order" and self.user() is not None:
            sent = sender.send(self.user(), {"order": secrets.randbelow(1000), "state": "taken"})
            self.answer(200, f"told {sent.sockets} sockets")
        else:
            self.answer(401, "Log in first")

    def user(self):
        jar = cookies.SimpleCookie(self.headers.get("cookie", ""))
        return sessions.get(jar["session"].value) if "session" in jar else None

    def answer(self, status, text, kind="text/plain; charset=utf-8", session=None):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        if session is not None:
            self.send_header("set-cookie", f"session={session}; HttpOnly; SameSite=Strict; Path=/")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Backend).serve_forever()
