import { askForKey } from "./dialogs.js";

const KEY = "api-key";

/** Where the server's paths begin: this module is at `assets/` below it. */
export const ROOT = new URL("..", import.meta.url).href.replace(/\/$/, "");

/** What the server answered instead of doing what was asked. */
export class ApiError extends Error {
  /**
   * @param {number} status HTTP status
   * @param {string} message the server's words
   */
  constructor(status, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** @type {Promise<boolean> | undefined} */
let asking;

/**
 * Sends a request with this tab's API key, and asks for one where the server wants one.
 *
 * @param {string} path of the server, wherever a proxy has put it
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} a reply of success
 * @throws {ApiError} for every other reply
 * @throws what `fetch` throws: no connection (`TypeError`), or the signal's reason
 */
export async function send(path, init = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = new Headers(init.headers);
    if (key !== null) headers.set("Authorization", `Bearer ${key}`);
    const response = await fetch(ROOT + path, { ...init, headers });
    if (response.ok) return response;
    const error = new ApiError(response.status, await errorText(response));
    // Another request may have got a new key meanwhile.
    const keyIsNew = sessionStorage.getItem(KEY) !== key;
    if (response.status !== 401 || !(keyIsNew || (await newKey(error.message)))) throw error;
  }
}

/**
 * @param {string} path
 * @returns {Promise<any>} the reply's JSON
 */
export async function get(path) {
  return (await send(path)).json();
}

/**
 * @param {string} path
 * @param {unknown} [body] sent as JSON
 * @param {string} [method]
 * @returns {Promise<any>} the reply's JSON
 */
export async function post(path, body = {}, method = "POST") {
  return (await send(path, jsonRequest(body, method))).json();
}

/**
 * @param {unknown} body
 * @param {string} [method]
 * @returns {RequestInit}
 */
export function jsonRequest(body, method = "POST") {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/**
 * What to tell a person about anything that {@link send} throws.
 *
 * @param {unknown} error
 */
export function describe(error) {
  if (error instanceof ApiError) return error.message;
  return error instanceof TypeError ? "The server cannot be reached." : String(error);
}

/**
 * @param {string} reason
 * @returns {Promise<boolean>} false if the person would rather not
 */
function newKey(reason) {
  asking ??= askForKey(reason)
    .then((key) => {
      if (key === null) return false;
      sessionStorage.setItem(KEY, key);
      return true;
    })
    .finally(() => {
      asking = undefined;
    });
  return asking;
}

/** @param {Response} response */
async function errorText(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string") return error;
  } catch {}
  return `The server answered ${response.status} ${response.statusText}`.trim();
}
