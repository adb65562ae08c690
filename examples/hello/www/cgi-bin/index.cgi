#!/bin/busybox sh
# One page: where this machine runs. Values come from the platform, and are still escaped.
escape() { echo "$1" | /bin/busybox sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'; }
row() { printf '<dt>%s</dt><dd>%s</dd>\n' "$1" "$(escape "${2:-not set}")"; }
printf 'Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\r\n'
/bin/busybox cat <<'HEAD'
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hello from Hangar</title>
<style>
  :root { color-scheme: light dark; --ink: #1d2433; --dim: #667085; --paper: #f5f6fa; --card: #fff; --line: #e4e7ee; --sky: #3f6df6 }
  @media (prefers-color-scheme: dark) { :root { --ink: #edf0f7; --dim: #98a2b8; --paper: #10131b; --card: #181d29; --line: #2a3142; --sky: #84a5ff } }
  * { box-sizing: border-box }
  body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
         font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
  main { width: 100%; max-width: 34rem; padding: 2.25rem; background: var(--card); border: 1px solid var(--line); border-radius: 1rem }
  svg { display: block; color: var(--sky) }
  h1 { margin: 1rem 0 .25rem; font-size: 1.6rem; letter-spacing: -.01em }
  p { margin: 0 0 1.5rem; color: var(--dim) }
  dl { margin: 0; display: grid; grid-template-columns: auto 1fr; border-top: 1px solid var(--line) }
  dt, dd { margin: 0; padding: .55rem 0; border-bottom: 1px solid var(--line) }
  dt { color: var(--dim); padding-right: 1.5rem }
  dd { font-family: ui-monospace, monospace; font-size: .86rem; overflow-wrap: anywhere; align-self: stretch; padding-top: .7rem }
</style>
<main>
<svg width="48" height="48" viewBox="0 0 48 48" fill="none" stroke="currentColor" stroke-width="3" stroke-linejoin="round" aria-hidden="true">
  <path d="M4 42V20C12 8 36 8 44 20v22"/><path d="M14 42V28h20v14"/><path d="M3 42h42" stroke-linecap="round"/>
</svg>
<h1>It flies.</h1>
<p>This page comes from a machine that sleeps when nobody calls.</p>
<dl>
HEAD
row App "$FLY_APP_NAME"
row Region "$FLY_REGION"
row Machine "$FLY_MACHINE_ID"
row Image "$FLY_IMAGE_REF"
row 'Private address' "$FLY_PRIVATE_IP"
row 'Served at' "$(/bin/busybox date -u '+%Y-%m-%d %H:%M:%S UTC')"
printf '</dl>\n</main>\n</html>\n'
