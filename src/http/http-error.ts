import { ClientError } from "../shared/errors.ts";

/** An error with another status than its code has: the contract gives one code two, or a library has chosen it. */
export class HttpError extends ClientError {
  override readonly status: number;

  constructor(status: number, ...error: ConstructorParameters<typeof ClientError>) {
    super(...error);
    this.status = status;
  }
}
