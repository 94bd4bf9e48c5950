// Looking at processes through /proc.
import { readFile, readdir } from 'node:fs/promises';

/** True while a process with this id runs; a zombie waiting for its parent does not count. */
export async function alive(pid) {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return stat !== '' && stateAndParent(stat).state !== 'Z';
}

/** All running descendants of `root`: `[{pid, command}]`. */
export async function descendants(root) {
  const all = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (stat !== '') all.push({ pid: Number(name), ...stateAndParent(stat), command: command.split('\0').join(' ').trim() });
  }
  const found = [];
  const queue = [root];
  while (queue.length > 0) {
    const parent = queue.shift();
    for (const one of all) {
      if (one.parent !== parent || one.state === 'Z') continue;
      found.push({ pid: one.pid, command: one.command });
      queue.push(one.pid);
    }
  }
  return found;
}

// The second field is the command in parentheses and may itself hold spaces and parentheses.
function stateAndParent(stat) {
  const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { state, parent: Number(parent) };
}
