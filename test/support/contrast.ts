/**
 * Finds text whose contrast with what is behind it is under 4.5:1 (WCAG 2.2, 1.4.3, level AA). Disabled controls are
 * exempt there, and large text is held to the same here.
 *
 * Evaluated in the page, so it may use nothing from outside itself.
 */
export function lowContrastTexts(): string[] {
  interface Element {
    readonly parentElement: Element | null;
    readonly childNodes: Iterable<{ nodeType: number; textContent: string }>;
    readonly offsetParent: Element | null;
    matches(selector: string): boolean;
  }
  interface Context {
    fillStyle: string;
    fillRect(...box: number[]): void;
    clearRect(...box: number[]): void;
    getImageData(...box: number[]): { data: Uint8ClampedArray };
  }
  const { document, getComputedStyle } = globalThis as unknown as {
    document: {
      querySelectorAll(selector: string): Iterable<Element>;
      createElement(name: "canvas"): { getContext(type: "2d", options: object): Context };
    };
    getComputedStyle(element: Element): { color: string; backgroundColor: string };
  };
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  // A canvas knows every notation a browser may give a colour in.
  const rgba = (colour: string) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour: readonly number[]) => {
    const [r = 0, g = 0, b = 0] = colour.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element: Element | null): readonly number[] => {
    if (element === null) return [255, 255, 255, 255];
    const colour = rgba(getComputedStyle(element).backgroundColor);
    return colour[3] === 255 ? colour : behind(element.parentElement);
  };
  const low: string[] = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(
      ({ nodeType, textContent }) => nodeType === 3 && textContent.trim() !== "",
    );
    if (text.length === 0 || element.offsetParent === null || element.matches(":disabled, option")) continue;
    const [a, b] = [luminance(rgba(getComputedStyle(element).color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${text[0]?.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return low;
}
