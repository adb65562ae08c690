import { Fault } from '#core/fault.ts'

export interface ImageUser {
  uid: number
  gid: number
  additionalGids: number[]
  home: string
}

interface PasswdEntry {
  name: string
  uid: number
  gid: number
  home: string
}

interface GroupEntry {
  name: string
  gid: number
  members: string[]
}

const isNumber = (text: string) => /^\d{1,10}$/.test(text)

function parsePasswd(text: string): PasswdEntry[] {
  const entries: PasswdEntry[] = []
  for (const line of text.split('\n')) {
    const [name, , uid, gid, , home] = line.split(':')
    if (name && uid && gid && isNumber(uid) && isNumber(gid)) {
      entries.push({ name, uid: Number(uid), gid: Number(gid), home: home || '/' })
    }
  }
  return entries
}

function parseGroup(text: string): GroupEntry[] {
  const entries: GroupEntry[] = []
  for (const line of text.split('\n')) {
    const [name, , gid, members] = line.split(':')
    if (name && gid && isNumber(gid)) {
      entries.push({ name, gid: Number(gid), members: members ? members.trim().split(',') : [] })
    }
  }
  return entries
}

/**
 * MCH-67: `user[:group]`, each a name of the image or a number. A number needs no entry, a name does. Without a group
 * the user's own groups apply, as a login would give them. A Fault (`invalid`) names what the image lacks.
 */
export function resolveImageUser(
  wanted: string,
  files: { passwd: string; group: string },
): ImageUser {
  const [userPart = '', groupPart = ''] = (wanted.trim() || '0').split(':')
  const users = parsePasswd(files.passwd)
  const groups = parseGroup(files.group)
  const user =
    users.find((entry) => entry.name === userPart) ??
    (isNumber(userPart) ? users.find((entry) => entry.uid === Number(userPart)) : undefined)
  if (!user && !isNumber(userPart)) {
    throw new Fault(
      'invalid',
      `the image has no user "${userPart}" in /etc/passwd; use one that it has, or a number`,
    )
  }
  const uid = user?.uid ?? Number(userPart)
  const home = user?.home ?? (uid === 0 ? '/root' : '/')
  if (groupPart !== '') {
    const group = groups.find((entry) => entry.name === groupPart)
    if (!group && !isNumber(groupPart)) {
      throw new Fault(
        'invalid',
        `the image has no group "${groupPart}" in /etc/group; use one that it has, or a number`,
      )
    }
    return { uid, gid: group?.gid ?? Number(groupPart), additionalGids: [], home }
  }
  const additional = groups.filter((entry) => user && entry.members.includes(user.name))
  const gid = user?.gid ?? 0
  return { uid, gid, additionalGids: additional.map((entry) => entry.gid), home }
}
