#!/usr/bin/env bash
# A script of Nautilus: copy it to ~/.local/share/nautilus/scripts/Upscale, and make it executable.
# Nautilus passes names of the folder it shows; those that begin with - are files too. It shows no messages, so there is a log.
state="${XDG_STATE_HOME:-$HOME/.local/state}"
mkdir -p "$state"
exec upframe upscale --log "$state/upframe.log" -- "$@"
