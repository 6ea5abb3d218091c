export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
  readonly body: any;
}

export type Content = string | Uint8Array;

/** Asks a server and reads what it answers. */
export interface TestClient {
  /** Sends what `fetch` would, and reads JSON where that is what comes back, else text. */
  request(path: string, init?: RequestInit): Promise<Reply>;
  /** Sends JSON (or, given a string or bytes, exactly those) and reads JSON. */
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Reply>;
  get(path: string, headers?: Record<string, string>): Promise<Reply>;
  delete(path: string, headers?: Record<string, string>): Promise<Reply>;
  /** Sends bytes or text as they are. */
  put(path: string, content: Content, headers?: Record<string, string>): Promise<Reply>;
  /** Uploads one file as a browser's form does. */
  upload(filename: string, content: Content, options?: UploadOptions): Promise<Reply>;
}

export interface UploadOptions {
  readonly path?: string;
  readonly field?: string;
  readonly headers?: Record<string, string>;
}

/** @param defaultHeaders sent with every request: a key, say. */
export function createClient(url: string, defaultHeaders: Record<string, string> = {}): TestClient {
  const request = async (path: string, init: RequestInit = {}): Promise<Reply> => {
    const headers = { ...defaultHeaders, ...(init.headers as Record<string, string> | undefined) };
    const response = await fetch(url + path, { ...init, headers });
    const text = await response.text();
    const isJson = response.headers.get("content-type")?.includes("json") === true;
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
  };
  return {
    request,
    post: (path, body, headers = {}) =>
      request(path, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body:
          typeof body === "string" || body instanceof Uint8Array
            ? (body as NonNullable<RequestInit["body"]>)
            : JSON.stringify(body),
      }),
    get: (path, headers = {}) => request(path, { headers }),
    delete: (path, headers = {}) => request(path, { method: "DELETE", headers }),
    put: (path, content, headers = {}) =>
      request(path, { method: "PUT", headers, body: content as NonNullable<RequestInit["body"]> }),
    upload: (filename, content, { path = "/api/upload", field = "csvFile", headers = {} } = {}) => {
      const form = new FormData();
      form.append(field, new Blob([content as Uint8Array<ArrayBuffer>]), filename);
      return request(path, { method: "POST", body: form, headers });
    },
  };
}
