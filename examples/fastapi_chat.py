"""A chat inside a FastAPI application, whose own sign-in says who is talking.

    pip install fastapi 'everwire[asgi]'
    uvicorn examples.fastapi_chat:app

Open http://127.0.0.1:8000/ in two windows. With ``--reload`` the windows come back by
themselves after each change to this file.
"""

from __future__ import annotations

import hmac
import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Cookie, Depends, FastAPI, HTTPException, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from everwire import Connection, Everwire, Forbidden, Grant, Position

SECRET = os.environ.get("CHAT_SECRET", "for development only").encode()
HERE = Path(__file__).parent

app = FastAPI()
wire = Everwire()


class Name(BaseModel):
    name: str = Field(min_length=1, max_length=40)


class Announcement(BaseModel):
    text: str = Field(min_length=1, max_length=500)


def session_of(name: str) -> str:
    signature = hmac.new(SECRET, name.encode(), "sha256").hexdigest()
    return f"{signature}.{quote(name)}"


# What any route of the application asks to know its user; everwire asks the same.
def signed_in(session: Annotated[str | None, Cookie()] = None) -> str:
    name = unquote((session or "").partition(".")[2])
    if not name or not hmac.compare_digest(str(session), session_of(name)):
        raise HTTPException(401, "sign in first")
    return name


User = Annotated[str, Depends(signed_in)]


@app.post("/sign-in")
async def sign_in(who: Name, response: Response) -> None:
    response.set_cookie("session", session_of(who.name), httponly=True, samesite="strict")


@wire.channel("chat:{room}", history=500, presence=True)
async def chat(conn: Connection, room: str) -> Grant:
    if room == "staff" and conn.user != "ada":
        raise Forbidden("staff only")
    return Grant()  # to read; what is said goes through `say`, so that it has its author


@wire.query
async def members(conn: Connection, room: str) -> list[str]:
    return sorted({member.user for member in await wire.presence(f"chat:{room}")})


@wire.command  # retried safely, runs once
async def say(conn: Connection, room: str, text: str) -> Position:
    return await wire.publish(f"chat:{room}", {"by": conn.user, "text": text})


# Any route may publish.
@app.post("/rooms/{room}/announcements")
async def announce(room: str, announcement: Announcement, user: User) -> dict[str, int]:
    position = await wire.publish(f"chat:{room}", {"by": f"{user} (HTTP)", **dict(announcement)})
    return {"offset": position.offset}


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(HERE / "fastapi_chat.html")


@app.get("/everwire.js")  # the browser's client comes with the package
async def client() -> FileResponse:
    return FileResponse(str(files("everwire") / "web" / "everwire.js"))


wire.attach(app, "/ws", user=signed_in)  # drains before the host closes
