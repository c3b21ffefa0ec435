// The page's media: the fake camera and microphone, and the elements that make the browser decode what arrives.

const elements = new Map();

/** The local stream, as the client asks for it: frames of the size the test wants. */
export async function localMedia(audio, video, options) {
  return navigator.mediaDevices.getUserMedia({
    audio,
    video: video && { width: { exact: options.width }, height: { exact: options.height } },
  });
}

/** Shows remote streams under `id`, or removes them: a track that no element plays is not decoded. */
export function attach(kind, id, streams) {
  const key = `${kind} ${id}`;
  const old = elements.get(key) ?? [];
  elements.delete(key);
  for (const element of old) element.remove();
  if (!streams) return;
  elements.set(key, streams.map(stream => {
    const element = document.createElement(kind);
    element.autoplay = true;
    element.playsInline = true;
    element.muted = kind === 'video';
    element.srcObject = stream;
    document.body.append(element);
    element.play().catch(() => {});
    return element;
  }));
}
