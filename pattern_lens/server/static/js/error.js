/** What could not be had, as the sentence to show. */
export class SourceError extends Error {
  /**
   * @param {string} message
   * @param {number} [status] of HTTP; 0 where no server answered
   */
  constructor(message, status = 0) {
    super(message);
    this.name = "SourceError";
    this.status = status;
  }
}
