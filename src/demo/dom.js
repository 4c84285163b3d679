/**
 * Elements from values. Text is only ever set as text, so that nothing that somebody published can
 * become markup.
 *
 * @module
 */

/** The element of that id. */
export const at = (id) => document.getElementById(id);

/**
 * Makes an element. `properties` are set as they are named in JavaScript; `data` and `aria` hold
 * attributes of those kinds.
 */
export function make(tag, { data, aria, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria ?? {}))
    element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Tells how something ended, where it was asked for. */
export function tell(element, text, failed = false) {
  element.textContent = text;
  element.classList.toggle('failed', failed);
}

/** Posts JSON to the service; gives its answer, or throws what it refused with. */
export async function post(path, body) {
  const response = await fetch(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (answer.status !== 'ok') throw new Error(answer.error);
  return answer;
}

/** Publishes through the service; gives the number of readers. */
export async function publish(channel, message) {
  return (await post('/publish', { channel, message })).data.readers;
}
