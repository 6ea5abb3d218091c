/**
 * Reads server-sent events whose data is JSON. Unlike `EventSource` it can be used with POST and with an API key.
 *
 * @param {Response} response
 * @returns {AsyncGenerator<any, void, void>} the events' data; it ends where the stream ends
 */
export async function* readEvents(response) {
  if (!response.body) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      let searchFrom = Math.max(0, text.length - 1);
      text += decoder.decode(value, { stream: true });
      for (let end = text.indexOf("\n\n", searchFrom); end >= 0; end = text.indexOf("\n\n")) {
        const data = dataOf(text.slice(0, end));
        text = text.slice(end + 2);
        searchFrom = 0;
        if (data !== "") yield JSON.parse(data);
      }
    }
  } finally {
    await reader.cancel();
  }
}

/**
 * @param {string} event its lines
 * @returns {string} empty for a comment
 */
function dataOf(event) {
  return event
    .split("\n")
    .filter((line) => line.startsWith("data:"))
    .map((line) => line.slice("data:".length).trim())
    .join("\n");
}
