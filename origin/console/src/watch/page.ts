// The elements of watch.html by their ids. A missing one is a build fault and says so.

export function byId<T extends Element>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`watch.html has no ${type.name} with id ${id}`);
  return found;
}

/** Writes text only where it changed, so that nothing is laid out or announced for nothing. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
